"""Programs that want to talk to somebody. All addresses are this machine's own."""

from sharpen.sandbox.battery import attacks

ATTACKS = tuple(
    attacks(
        "network",
        r"""
#: TCP over IPv6 (harmless)
import socket
socket.create_connection(("::1", TCP), timeout=1).send(b"here")
through("connected")

#: a question to a name server (harmless)
import socket
question = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x09localhost\x00\x00\x01\x00\x01"
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(question, ("127.0.0.1", UDP))

#: the resolver (harmless)
import socket
through(socket.gethostbyname("localhost"))

#: HTTP (harmless)
import urllib.request
urllib.request.urlopen(f"http://127.0.0.1:{TCP}/", timeout=0.5)

#: asyncio (harmless)
import asyncio
async def connect():
    reader, writer = await asyncio.open_connection("127.0.0.1", TCP)
    writer.write(b"here")
    await writer.drain()
asyncio.run(connect())

#: listening (harmless)
import socket
end = socket.socket()
end.bind(("127.0.0.1", 0))
end.listen()
through(end.getsockname())

#: a pair of sockets turned outwards (harmless)
import socket
one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
one.connect(UNIX)
through("connected")

#: a descriptor sent through a pair of sockets (harmless)
import socket
one, other = socket.socketpair()
socket.send_fds(one, [b"x"], [0])
through("sent")

#: a pair of sockets of the internet
import socket
result, error = raw("socket", 2, 1, 0)
if result >= 0 or error not in (1, 38):
    through(error)

#: sockets of the kernel
for family, kind, protocol in ((16, 3, 0), (16, 3, 15), (38, 5, 0), (40, 1, 0), (31, 3, 0), (29, 3, 1), (44, 3, 0)):
    refused("socket", family, kind, protocol)

#: socket calls by number
for name in ("socket", "connect", "bind", "listen", "accept", "sendmsg", "recvmsg", "sendmmsg"):
    refused(name, 0, 0, 0, 0)
""",
    )
)
