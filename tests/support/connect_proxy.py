"""A proxy that tunnels by CONNECT, and a front that speaks TLS for a server that does not."""

import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener


@dataclass
class ConnectProxy:
    """Answers each CONNECT with a status, or lets it through to a port of the loopback."""

    target: int = 0
    user: str = ""
    """With the password, as `user:password`; empty: anybody may ask."""
    status: int = 200
    port: int = 0
    heads: list[str] = field(default_factory=list)
    """Of the requests that came."""

    def answer_to(self, head: str) -> int:
        wanted = f"Proxy-Authorization: Basic {b64encode(self.user.encode()).decode()}"
        if self.user and wanted.lower() not in head.lower():
            return 407
        return self.status

    async def serve(self, stream: ByteStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            self.heads.append(head.decode())
            status = self.answer_to(head.decode())
            if status != 200:
                await stream.send(b"HTTP/1.1 %d Told so\r\nContent-Length: 0\r\n\r\n" % status)
                return
            await stream.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with await anyio.connect_tcp("127.0.0.1", self.target) as onward:
                await relay(stream, onward)


async def relay(one: ByteStream, other: ByteStream) -> None:
    """Until either side ends."""

    async def pass_on(source: ByteStream, sink: ByteStream) -> None:
        try:
            async for chunk in source:
                await sink.send(chunk)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError):
            pass
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pass_on, one, other)
        tasks.start_soon(pass_on, other, one)


@asynccontextmanager
async def open_proxy(proxy: ConnectProxy) -> AsyncIterator[ConnectProxy]:
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        proxy.port = listener.extra(SocketAttribute.local_port)  # noqa: S610  # no Django
        tasks.start_soon(listener.serve, proxy.serve)
        yield proxy
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def open_tls_front(target: int, certificate: Path) -> AsyncIterator[int]:
    """A port that speaks TLS and passes all on to a port that does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def serve(stream: ByteStream) -> None:
        async with stream, await anyio.connect_tcp("127.0.0.1", target) as onward:
            await relay(stream, onward)

    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    async with (
        TLSListener(plain, context, standard_compatible=False) as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, serve)
        port: int = plain.extra(SocketAttribute.local_port)  # noqa: S610  # no Django
        yield port
        tasks.cancel_scope.cancel()


def write_certificate(path: Path) -> Path:
    """A certificate of the loopback that signs itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path
