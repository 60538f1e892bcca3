"""The program in a process of its own, and an emulator for it to speak to."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anyio.from_thread import start_blocking_portal

from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import Emulator, open_emulator
from tests.support.forks import Ended, ForkedProgram, Run, run_forked
from tests.support.patience import HANG_S, AnswerClock

SCENARIO = Scenario(
    seed=7,
    workspaces=(
        EmulatedWorkspace(
            workspace_id="w-1",
            name="用户 one",
            gateways=(
                EmulatedGateway(gateway_id="lc-b", name="second letter", session_count=730),
                EmulatedGateway(gateway_id="lc-a", name="first letter", session_count=205),
            ),
        ),
        EmulatedWorkspace(
            workspace_id="w-2",
            name="two",
            gateways=(
                EmulatedGateway(gateway_id="lc-empty", name="empty", session_count=0),
                EmulatedGateway(gateway_id="lc-one", name="one", session_count=1),
            ),
        ),
    ),
)


COMMAND = (sys.executable, "-m", "exporter")


@dataclass(frozen=True)
class Program:
    """Runs livy-exporter in a folder, with nothing in its environment but what is given.

    It is forked where no command line is asked for, and nothing else that takes a whole process.
    """

    folder: Path
    environ: Mapping[str, str]

    def run(
        self,
        *arguments: str,
        environ: Mapping[str, str] | None = None,
        command: tuple[str, ...] | None = None,
        preexec: Callable[[], None] | None = None,
        stdout: int = subprocess.PIPE,
    ) -> Ended:
        """Run it to its end; variables of `environ` that are empty are taken away."""
        if command is None and preexec is None and stdout == subprocess.PIPE:
            return run_forked(*arguments, environ=self._environ(environ or {}), folder=self.folder)
        ended = subprocess.run(
            [*(command or COMMAND), *arguments],
            cwd=self.folder,
            env=self._environ(environ or {}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            check=False,
            timeout=HANG_S,
            preexec_fn=preexec,
        )
        return Ended(ended.returncode, (ended.stdout or b"").decode(), ended.stderr.decode())

    def start(self, *arguments: str) -> ForkedProgram:
        return ForkedProgram(Run(arguments, self._environ({}), self.folder))

    def listing(self) -> dict[str, bytes]:
        """Every file below the folder, hidden ones too, with its bytes."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if path.is_file() else b"folder"
            for path in self.folder.rglob("*")
        }

    def _environ(self, changes: Mapping[str, str]) -> dict[str, str]:
        merged = {**self.environ, **changes}
        return {name: value for name, value in merged.items() if value != ""}


@contextmanager
def serving(scenario: Scenario) -> Iterator[Emulator]:
    """An emulator in a thread of this process. Lists that move do so by its answers."""
    is_moving = any(
        gateway.churn is not None
        for workspace in scenario.workspaces
        for gateway in workspace.gateways
    )
    clock = AnswerClock() if is_moving else time.monotonic
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_emulator(scenario, monotonic_s=clock)) as emulator,
    ):
        yield emulator


def environ_for(emulator: Emulator, home: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        # No cloud instance's identity, wherever the tests run.
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
        "ALIBABA_CLOUD_ACCESS_KEY_ID": emulator.scenario.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": emulator.scenario.access_key_secret,
        "LIVY_EXPORTER_ENDPOINT": emulator.endpoint,
        "LIVY_EXPORTER_REGION": emulator.scenario.region_id,
    }


ProgramFor = Callable[[Scenario], tuple[Program, Emulator]]


def build_program(emulator: Emulator, tmp_path: Path) -> Program:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    return Program(folder, environ_for(emulator, home))
