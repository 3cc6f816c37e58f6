"""Passes connections on, from an address to the same ports of 127.0.0.1, and counts: `relay.py ADDRESS PORT…`.

Each line that comes in is answered with how many bytes went to the servers and came from them so far.
"""

import asyncio
import socket
import sys

PIECE = 1 << 16


async def carry(reader, writer, count, which):
    try:
        while data := await reader.read(PIECE):
            count[which] += len(data)
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(address, port, count):
    async def accept(reader, writer):
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        for side in (writer, server):
            side.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(carry(reader, server, count, 0), carry(answers, writer, count, 1))

    await asyncio.start_server(accept, address, port)


async def main(address, *ports):
    count = [0, 0]
    for port in ports:
        await serve(address, int(port), count)
    print(*count, flush=True)
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while await lines.readline():
        print(*count, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
