"""Clients that lesson 01 runs in a process of their own, beside a server that they measure.

In the server's own process they would take its processor time and its GIL. Run as a module, this
file reads a line for each visit, ``PORT PATH CLIENTS TURNS``, and prints when all have answers. It
ends when its standard input is closed. It imports nothing of the course, so that it starts soon.
"""

from __future__ import annotations

import asyncio
import sys

HOST = "127.0.0.1"
LINE = "line"  # the path that asks a server of lines, which sends back what it gets


class Visitor(asyncio.Protocol):
    """One connection that asks so many times, each time when the answer before is complete."""

    def __init__(self, path: str, turns: int) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self._http = path != LINE
        request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n" if self._http else f"{path}\n"
        self._request = request.encode()
        self._turns = turns
        self._got = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport to write to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def ask(self) -> None:
        """Send a request."""
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Ask again when the answer is complete, or end after the last one."""
        self._got += data
        try:
            complete = self._complete()
        except ValueError as error:
            self.done.set_exception(error)
            return
        if not complete:
            return
        self._got = b""
        self._turns -= 1
        if self._turns:
            self.ask()
        else:
            self._transport.close()
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail when the server hung up before the last answer."""
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def _complete(self) -> bool:
        if not self._http:
            return self._got.endswith(b"\n")
        head, found, body = self._got.partition(b"\r\n\r\n")
        if not found:
            return False
        status = head.split(b" ", 2)[1]
        if status != b"200":
            raise ValueError(f"the server answered {status.decode()}")
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        return len(body) >= int(length)


async def visit(port: int, path: str, clients: int, turns: int) -> None:
    """Ask by so many connections at once, each so many times, and wait for all answers.

    All are connected before the first asks. Raises ValueError for an answer other than 200, OSError
    when a connection fails.
    """
    loop = asyncio.get_running_loop()
    visitors = []
    for _ in range(clients):
        _, visitor = await loop.create_connection(lambda: Visitor(path, turns), HOST, port)
        visitors.append(visitor)
    for visitor in visitors:
        visitor.ask()
    await asyncio.gather(*[visitor.done for visitor in visitors])


def main() -> None:
    """Visit what each line of the standard input says, and print "done" after each."""
    for line in sys.stdin:
        port, path, clients, turns = line.split()
        asyncio.run(visit(int(port), path, int(clients), int(turns)))
        sys.stdout.write("done\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
