"""Viewers of a screen that look at nothing: they take what they are sent and say that they show it (docs/SCREEN.md)."""

import asyncio
import base64
import os
import struct

UPDATE = 1


async def connect(socket, machine):
    """A WebSocket over the daemon's own socket."""
    reader, writer = await asyncio.open_unix_connection(socket)
    writer.write(f"GET /api/v1/machines/{machine}/screen HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    if b" 101 " not in answer.partition(b"\r\n")[0]:
        raise SystemExit(f"no WebSocket: {answer.decode()}")
    return reader, writer


async def message(reader):
    """The next message: they come in one piece each."""
    first, length = await reader.readexactly(2)
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    return first & 15, await reader.readexactly(length)


def text(said):
    """A short text, masked with nothing."""
    return struct.pack("!BBI", 0x81, 0x80 | len(said), 0) + said


async def look(socket, machine, counts):
    """Takes updates and acknowledges them, and counts them and their bytes, until nobody wants it any more."""
    reader, writer = await connect(socket, machine)
    try:
        while True:
            kind, content = await message(reader)
            if kind == 2 and content[0] == UPDATE:
                number, = struct.unpack_from("<I", content, 6)
                writer.write(text(b'{"type":"shown","number":%d}' % number))
                counts["updates"] += 1
                counts["bytes"] += len(content)
    finally:
        writer.close()


async def watch(socket, machine, viewers, seconds, busy):
    """What so many of them are sent in so many seconds, all together, and what `busy` grows by meanwhile."""
    counts = {"updates": 0, "bytes": 0}
    lookers = [asyncio.create_task(look(socket, machine, counts)) for _ in range(viewers)]
    await asyncio.sleep(2)
    before, began = dict(counts), busy()
    done, _ = await asyncio.wait(lookers, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    worked = busy() - began
    for looker in done:
        looker.result()
    for looker in lookers:
        looker.cancel()
    await asyncio.gather(*lookers, return_exceptions=True)
    return {key: counts[key] - before[key] for key in counts}, worked
