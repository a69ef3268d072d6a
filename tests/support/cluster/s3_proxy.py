"""Stands between pipelines and the S3 server in a pod of its own: passes bytes on, and prints a line for each request.

python3 s3_proxy.py HOST PORT. Scaled to zero, it is a store that is down, on any cluster. A line is the time, the
method and the path.
"""

import asyncio
import re
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
_LARGEST = 1 << 20  # bytes of a request's head


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def requests(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on one request after the other: its head, which is printed, and its body, by Content-Length."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            method, path, *_ = head.decode("latin-1").split(" ", 2)
            print(f"{time.time():.3f} {method} {path}", flush=True)
            writer.write(head)
            size = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            left = int(size[1]) if size else 0
            while left and (data := await reader.read(min(left, 1 << 16))):
                left -= len(data)
                writer.write(data)
                await writer.drain()
    except asyncio.IncompleteReadError:
        pass
    finally:
        writer.close()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        far_reader, far_writer = await asyncio.open_connection(HOST, PORT, limit=_LARGEST)
    except OSError:
        writer.close()
        return
    await asyncio.gather(requests(reader, far_writer), pass_on(far_reader, writer), return_exceptions=True)


async def main() -> None:
    server = await asyncio.start_server(serve, "0.0.0.0", 9000, limit=_LARGEST)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
