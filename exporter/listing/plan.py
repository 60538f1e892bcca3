"""Requests that a listing has decided on and not given out yet; performs no I/O."""

from dataclasses import dataclass

from exporter.listing.interface import PageRequest, Purpose
from exporter.listing.windows import Window
from exporter.model import Gateway


@dataclass(frozen=True, slots=True)
class PlannedRequest:
    window: Window
    purpose: Purpose
    wait_s: float = 0.0

    def to_request(self, gateway: Gateway, number: int) -> PageRequest:
        window = self.window
        return PageRequest(
            gateway, window.page_num, window.page_size, number, self.purpose, self.wait_s
        )
