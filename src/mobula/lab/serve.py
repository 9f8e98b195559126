"""Runs the provider for Terraform (plugin protocol 6), in place of the framework's own runner. Pinned to tf 1.2.0.

What the stock runner does, and why this one is there: it stops the server at once on Ctrl-C and on StopProvider, so that every create
in flight is lost; it outlives a killed Terraform for ever; it has ten fixed threads; it keeps a key in $HOME; an exception in a resource
becomes an unknown gRPC error. Here: Ctrl-C is Terraform's business, the server ends when Terraform has gone and what runs has finished,
and an exception becomes a diagnostic.

Protocol: a line on standard output, ``1|6|unix|<socket>|grpc|<certificate>``, then gRPC over that socket with TLS.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import signal
import sys
import tempfile
import threading
from concurrent import futures
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from tf.gen import grpc_controller_pb2, grpc_controller_pb2_grpc, grpc_stdio_pb2_grpc, tfplugin_pb2, tfplugin_pb2_grpc
from tf.iface import UpgradeContext
from tf.provider import ProviderServicer
from tf.utils import Diagnostics, to_dynamic_value

from mobula.lab.provider import LabProvider

COOKIE = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"
THREADS = 64
PARENT_POLL_S = 2.0
LAST_CALLS_S = 600


def _certificate() -> tuple[bytes, bytes, bytes]:
    """A certificate for this run: DER, PEM, private key PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5)).not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, der = serialization.Encoding.PEM, serialization.Encoding.DER
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(der), certificate.public_bytes(pem), private


class Guarded:
    """A resource whose exceptions become diagnostics and whose states fit the schema."""

    def __init__(self, resource: Any) -> None:
        self._resource = resource

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resource, name)

    def _fit(self, state: dict[str, Any] | None) -> dict[str, Any] | None:
        if state is None:
            return None
        return {a.name: state.get(a.name) for a in self._resource.get_schema().attributes}

    def _try(self, verb: str, ctx: Any, *args: Any) -> dict[str, Any] | None:
        try:
            return self._fit(getattr(self._resource, verb)(ctx, *args))
        except Exception as error:  # noqa: BLE001 (the outermost frame: Terraform shows it, nothing is lost)
            ctx.diagnostics.add_error(f"{verb}: {error}", type(error).__name__)
            return None

    def create(self, ctx: Any, planned: dict[str, Any]) -> dict[str, Any] | None:
        return self._try("create", ctx, planned)

    def read(self, ctx: Any, current: dict[str, Any]) -> dict[str, Any] | None:
        return self._try("read", ctx, current)

    def update(self, ctx: Any, current: dict[str, Any], planned: dict[str, Any]) -> dict[str, Any] | None:
        return self._try("update", ctx, current, planned)

    def delete(self, ctx: Any, current: dict[str, Any]) -> None:
        self._try("delete", ctx, current)


class Servicer(ProviderServicer):  # type: ignore[misc]
    """The framework's servicer, without its haste to stop."""

    def StopProvider(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002 (gRPC's names)
        self.app.stopping.set()
        return tfplugin_pb2.StopProvider.Response()

    def UpgradeResourceState(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Also makes the result fit the schema: attributes that are gone are dropped, new ones are null."""
        diagnostics = Diagnostics()
        state = json.loads(request.raw_state.json)
        cls = self._get_res_cls(request.type_name)
        if request.version < (cls.get_schema().version or 0):
            context_ = UpgradeContext(diagnostics, request.type_name)
            state = self.app.new_resource(cls).upgrade(context_, request.version, state)
        state = {name: state.get(name) for name in self._get_res_attrs(request.type_name)}
        return tfplugin_pb2.UpgradeResourceState.Response(
            upgraded_state=to_dynamic_value(state), diagnostics=diagnostics.to_pb()
        )


class Stdio(grpc_stdio_pb2_grpc.GRPCStdioServicer):  # type: ignore[misc]
    def StreamStdio(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        return iter(())


class Controller(grpc_controller_pb2_grpc.GRPCControllerServicer):  # type: ignore[misc]
    def __init__(self, done: threading.Event) -> None:
        self._done = done

    def Shutdown(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        self._done.set()
        return grpc_controller_pb2.Empty()


def main() -> None:
    """Serve until Terraform asks us to go, or has gone."""
    if os.environ.get("TF_PLUGIN_MAGIC_COOKIE") != COOKIE:
        sys.exit("this is a Terraform provider: Terraform starts it, not a person")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    provider = LabProvider()
    servicer = Servicer(provider)
    plain = provider.new_resource
    provider.new_resource = lambda cls: Guarded(plain(cls))
    done = threading.Event()
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=THREADS))
    tfplugin_pb2_grpc.add_ProviderServicer_to_server(servicer, server)
    grpc_controller_pb2_grpc.add_GRPCControllerServicer_to_server(Controller(done), server)
    grpc_stdio_pb2_grpc.add_GRPCStdioServicer_to_server(Stdio(), server)
    with tempfile.TemporaryDirectory(prefix="mobula-lab-") as folder:
        der, pem, key = _certificate()
        socket = f"{folder}/provider.sock"
        server.add_secure_port(f"unix://{socket}", grpc.ssl_server_credentials([(key, pem)]))
        server.start()
        sys.stdout.write(
            "|".join(["1", "6", "unix", socket, "grpc", base64.b64encode(der).decode().rstrip("=")]) + "\n"
        )
        sys.stdout.flush()
        parent = os.getppid()
        while not done.wait(PARENT_POLL_S) and os.getppid() == parent:
            pass
        # Terraform asked us to go, or is gone: what runs is finished, nothing new is taken.
        server.stop(grace=1 if done.is_set() else LAST_CALLS_S).wait()


if __name__ == "__main__":
    main()
