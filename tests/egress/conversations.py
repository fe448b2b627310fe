"""What goes over a gated connection in a test: steps done at once, by a server that answers as it is told."""

from __future__ import annotations

from wasm_sandbox import Network, Secret
from wasm_sandbox.egress.cassette import Player, Recorder
from wasm_sandbox.egress.http import Ask, Close, Finished, HttpGate, Step, ToGuest, ToHost
from wasm_sandbox.egress.secrets import RunSecrets
from wasm_sandbox.results import Request

VALUE = "sk-live/4eC39HqLyjWDar+jtT1zdp7dc"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Conversation:
    """A guest and a server, with a gate between them; requests that are asked about proceed."""

    def __init__(
        self, network: Network | None = None, tape: Recorder | Player | None = None, is_tls: bool = True
    ) -> None:
        self.network = network or Network(["a.test"])
        self.secrets = RunSecrets(self.network.secrets)
        self.gate = HttpGate(self.network, "a.test", 443 if is_tls else 80, self.secrets, tape)
        self.gate.is_tls = is_tls
        self.to_host = self.to_guest = b""
        self.asked: list[Request] = []
        self.finished: list[Request] = []
        self.close: Close | None = None
        self.denies: str | None = None

    def guest(self, data: bytes) -> Conversation:
        self._do(self.gate.from_guest(data))
        return self

    def host(self, data: bytes) -> Conversation:
        self._do(self.gate.from_host(data))
        return self

    def _do(self, steps: list[Step]) -> None:
        for step in steps:
            assert self.close is None, "nothing comes after the end"
            match step:
                case ToHost(data):
                    self.to_host += data
                case ToGuest(data):
                    self.to_guest += data
                case Ask(request):
                    self.asked.append(request)
                    go = self.gate.proceed(request) if self.denies is None else self.gate.refuse(request, self.denies)
                    self._do(go)
                case Finished(request):
                    self.finished.append(request)
                case Close():
                    self.close = step


def with_secret(**options: object) -> Conversation:
    fields = {"hosts": ["a.test"], **options}
    return Conversation(Network(["a.test"], secrets={"KEY": Secret(VALUE, **fields)}))  # type: ignore[arg-type]
