"""Four organisations beside one trust domain: a question, a vector of 10 MB, the stream itself, and memory.

Every organisation is processes of its own on this machine: four silos and the aggregator, each with a Ray cluster. So
all of them share its cores, as they would not between organisations.
"""

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from aggregator.gate import Gate
from aggregator.streams import StreamSilo
from analyst.client import Federation
from analyst.demo.hospitals import found_hospitals
from crypto.backends.scheme import CHUNK_VALUES
from crypto.rounds.payload import frames
from federation.founding import found
from federation.members.certificates import host_of, pin_of, read_transport_key
from federation.transport.frames import DATA_BYTES, Parts
from federation.transport.handshake import OPTIONS
from silo_node.transport.dialler import Dialler
from tests.bench.endtoend import family, proportional_mib
from tests.bench.figures import publish
from tests.bench.secure_sum import manifest
from tests.harness.federated import AGGREGATOR, ANALYST, Counted, credentials, free_port, furnish, provision
from tests.harness.waiting import until

QUESTION = "SELECT sex, COUNT(*) AS n, AVG(age) AS mean_age FROM lung GROUP BY sex"
PURPOSE = "health-research"
SILOS = ("aspen", "birch", "cedar", "maple")
RUNS = 11
STREAM_BYTES = 128 << 20
VECTOR_VALUES = 2_500_000  # of 4 bytes
SIZES = [4 * min(CHUNK_VALUES, VECTOR_VALUES - start) for start in range(0, VECTOR_VALUES, CHUNK_VALUES)]
REPEATS = 9


def main() -> None:
    """Print every figure; with arguments, this is a child process that one of them needs."""
    if sys.argv[1:2] == ["--stream"]:
        asyncio.run(stream_child(Path(sys.argv[2]), sys.argv[3]))
        return
    if sys.argv[1:2] == ["--simulate"]:
        simulate_child(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        found_hospitals(path / "demo")
        framed, pulled, bare = asyncio.run(streams(path))
        stream = "a bare gRPC stream with the same TLS and frames"
        publish("stream_throughput", pulled, "MB/s", stream, bare, "at least ratio 0.7")
        publish("stream_throughput_32MiB", framed, "MB/s", stream, bare, "at least ratio 0.7")
        simulated, in_simulate = simulate(path)
        federated, in_federated, memory = organisations(path)
    publish("query_4_orgs", federated, "ms", "the same in simulate mode", simulated, "ratio 2")
    publish("round_10MB_4_orgs", in_federated, "ms", "the same in simulate mode", in_simulate, "ratio 2")
    for role, values in memory.items():
        publish(f"memory_per_org_{role}", values, "MiB")


# The stream: one process sends, the other takes; by our frames, and by gRPC alone.


async def streams(path: Path) -> tuple[list[float], list[float], list[float]]:
    """Return MB/s of one reply of 32 MiB after the other, of one of 4 MiB, and of a bare stream, measured in turn."""
    port, bare_port = free_port(), free_port()
    place = provision(path / "stream", path / "demo", f"127.0.0.1:{port}", SILOS[:1])
    handles: dict[str, StreamSilo] = {}

    def serve(silos: Any) -> Any:
        handles.update(silos)

    gate = Gate(credentials(place, AGGREGATOR, "aggregator"), serve, Counted())
    await gate.start(f"127.0.0.1:{port}")
    taken: asyncio.Queue[float] = asyncio.Queue()

    async def take(_: object, context: Any) -> None:
        """Ask for STREAM_BYTES, REPEATS times, and say how long each took."""
        await context.read()
        for _ in range(REPEATS + 1):
            began, received = time.perf_counter(), 0
            await context.write(b"go")
            while received < STREAM_BYTES:
                received += len(await context.read())
            await taken.put(time.perf_counter() - began)
            while not taken.empty():
                await asyncio.sleep(0.005)

    tls = credentials(place, AGGREGATOR, "aggregator").tls()
    server = grpc.aio.server(options=list(OPTIONS))
    handler = grpc.stream_stream_rpc_method_handler(take)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Bare", {"Take": handler}),))
    server.add_secure_port(
        f"127.0.0.1:{bare_port}", grpc.ssl_server_credentials([(tls.key, tls.chain)], tls.authority, True)
    )
    await server.start()
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.federated", "--stream", str(place), str(bare_port)
    )
    framed: list[float] = []
    pulled: list[float] = []
    bare: list[float] = []
    try:
        while not handles[SILOS[0]].is_connected:
            await asyncio.sleep(0.05)
        for _ in range(REPEATS + 1):  # the first is a warm-up
            seconds = await asyncio.wait_for(taken.get(), 60)
            bare.append(STREAM_BYTES / seconds / 1e6)
            for size, found in ((32 << 20, framed), (4 << 20, pulled)):
                began, received = time.perf_counter(), 0
                while received < STREAM_BYTES:
                    (part,) = await handles[SILOS[0]].call("frame", bytes(16), size.to_bytes(8, "big"))
                    received += len(part)
                found.append(received / (time.perf_counter() - began) / 1e6)
    finally:
        child.kill()
        await child.wait()
        await gate.stop(0.1)
        await server.stop(None)
    return framed[1:], pulled[1:], bare[1:]


async def stream_child(place: Path, bare_port: str) -> None:
    """Be the silo of both streams."""
    replies, frame = {size: bytes(size) for size in (4 << 20, 32 << 20)}, bytes(DATA_BYTES)

    async def call(step: str, arguments: Parts) -> Parts:
        return (replies[int.from_bytes(arguments[1], "big")],)

    async def renewed() -> bool:
        return False

    own = credentials(place, SILOS[0], "silo")
    dialler = Dialler(own, AGGREGATOR, call, Counted(), renewed, first_wait_s=0.05)
    running = asyncio.create_task(dialler.run())
    tls = own.tls()
    pin = pin_of(read_transport_key(place / AGGREGATOR / "transport.key").public_key())
    options = [*OPTIONS, ("grpc.ssl_target_name_override", host_of(pin))]
    secure = grpc.ssl_channel_credentials(tls.authority, tls.key, tls.chain)
    while not dialler.is_connected:
        await asyncio.sleep(0.02)
    async with grpc.aio.secure_channel(f"127.0.0.1:{bare_port}", secure, options=options) as channel:
        stream: Any = channel.stream_stream("/bare.Bare/Take")()
        await stream.write(b"hello")
        while isinstance(await stream.read(), bytes):
            for _ in range(STREAM_BYTES // DATA_BYTES):
                await stream.write(frame)
    await running


# The question, and a vector of 10 MB pulled from every silo and added, in both modes.


def timed_queries(federation: Federation) -> list[float]:
    """Return milliseconds of warm questions."""
    taken = []
    for index in range(RUNS + 2):
        began = time.perf_counter()
        federation.query(QUESTION, purpose=PURPOSE, epsilon=0.3)
        if index >= 2:
            taken.append((time.perf_counter() - began) * 1000)
    return taken


def simulate(path: Path) -> tuple[list[float], list[float]]:
    """Return milliseconds of the question in simulate mode, and of the vector round over Ray alone."""
    keys = found(path / "simulate", "bench", dict.fromkeys(SILOS), (ANALYST,))
    for silo in SILOS:
        furnish(path / "simulate" / "silos" / silo, path / "demo" / "silos" / silo, keys[ANALYST])
    command = [sys.executable, "-m", "tests.bench.federated", "--simulate", str(path / "simulate")]
    output = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, timeout=600).stdout
    question, vectors = (line for line in output.splitlines() if line.startswith("["))
    return numbers(question), numbers(vectors)


def numbers(line: str) -> list[float]:
    return [float(one) for one in line.strip("[]").split(",")]


def simulate_child(path: Path) -> None:
    """Measure both in simulate mode; a process of its own, as Ray keeps its settings."""
    with Federation.open(path / "consilo.toml") as federation:
        print(timed_queries(federation), flush=True)
        import ray

        class Silo:
            def __init__(self) -> None:
                self.parts = vector_parts()

            def frame(self, index: bytes) -> tuple[bytes, ...]:
                return (self.parts[int.from_bytes(index, "big")],)

        remote: Any = ray.remote(num_cpus=0)(Silo)
        silos = [remote.remote() for _ in SILOS]

        async def call(silo: int, index: int) -> bytes:
            (part,) = await silos[silo].frame.remote(index.to_bytes(8, "big"))
            return bytes(part)

        print(asyncio.run(vector_rounds(call)), flush=True)


def vector_parts() -> list[bytes]:
    """Return a contribution of 10 MB in the frames that a silo sends."""
    return [os.urandom(sum(SIZES[piece] for piece in pieces)) for pieces in frames(SIZES)]


async def vector_rounds(call: Callable[[int, int], Any]) -> list[float]:
    """Pull 10 MB from every silo at once, frame by frame, stage and add them as a round does; return milliseconds.

    What differs between the modes is how the frames travel; the sum is the same actor's in both.
    """
    import ray

    from aggregator.sums import SumShard

    taken = list[float]()
    with tempfile.TemporaryDirectory() as place:
        remote: Any = ray.remote(num_cpus=0)(SumShard)
        shard = remote.remote(Path(place))
        for number in range(REPEATS + 1):
            round_id = number.to_bytes(16, "big")
            gc.collect()
            began = time.perf_counter()
            await shard.start.remote(round_id, manifest(list(SILOS), sum(SIZES) // 4), b"")

            async def one(silo: int, round_id: bytes = round_id) -> None:
                for index, pieces in enumerate(frames(SIZES)):
                    frame = await call(silo, index)
                    await shard.stage.remote(round_id, SILOS[silo], pieces.start, pieces.stop, frame)
                await shard.keep.remote(round_id, SILOS[silo], (silo + 1).to_bytes(16, "big") + round_id)

            await asyncio.gather(*(one(silo) for silo in range(len(SILOS))))
            names = tuple((silo + 1).to_bytes(16, "big") + round_id for silo in range(len(SILOS)))
            await shard.close.remote(round_id, names)
            taken.append((time.perf_counter() - began) * 1000)
    return taken[1:]


def organisations(path: Path) -> tuple[list[float], list[float], dict[str, list[float]]]:
    """Return milliseconds of question and vector round between organisations, and MiB of each by role."""
    port, monitor = free_port(), free_port()
    place = provision(path / "federated", path / "demo", f"127.0.0.1:{port}", SILOS)
    program = [sys.executable, "-m", "aggregator", "serve", str(place / AGGREGATOR)]
    commands = {AGGREGATOR: [*program, "--listen", f"127.0.0.1:{port}", "--monitor-port", str(monitor)]}
    for silo in SILOS:
        policy = str(place / silo / "policy.toml")
        commands[silo] = [
            sys.executable,
            "-m",
            "silo_node.owner.cli",
            "serve",
            "--policy",
            policy,
            "--monitor-port",
            "0",
        ]
    running = {
        who: subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for who, command in commands.items()
    }
    try:
        until(lambda: is_complete(monitor), 300)
        with Federation.open(place / ANALYST / "consilo.toml") as federation:
            question = timed_queries(federation)
        memory = {who: sum(map(proportional_mib, family(process.pid))) for who, process in running.items()}
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait(120)
    by_role = {"aggregator": [memory[AGGREGATOR]], "silo": [memory[silo] for silo in SILOS]}
    return question, asyncio.run(federated_vectors(path)), by_role


def is_complete(monitor: int) -> bool:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(f"http://127.0.0.1:{monitor}/health", timeout=2) as answer:
            return b'"missing": []' in answer.read()
    except (URLError, OSError):
        return False


async def federated_vectors(path: Path) -> list[float]:
    """Measure the vector round with every silo a process of its own behind its stream."""
    import logging

    import ray

    port = free_port()
    place = provision(path / "vectors", path / "demo", f"127.0.0.1:{port}", SILOS)
    handles: dict[str, StreamSilo] = {}

    def serve(silos: Any) -> Any:
        handles.update(silos)

    gate = Gate(credentials(place, AGGREGATOR, "aggregator"), serve, Counted())
    await gate.start(f"127.0.0.1:{port}")
    program = (
        "import asyncio, sys; from pathlib import Path; from tests.bench.federated import vector_child;"
        "asyncio.run(vector_child(Path(sys.argv[1]), sys.argv[2]))"
    )
    children = [subprocess.Popen([sys.executable, "-c", program, str(place), silo]) for silo in SILOS]
    try:
        ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, object_store_memory=128 << 20)
        while len(gate.connected) < len(SILOS):
            await asyncio.sleep(0.05)

        async def call(silo: int, index: int) -> bytes:
            (part,) = await handles[SILOS[silo]].call("frame", bytes(16), index.to_bytes(8, "big"))
            return part

        return await vector_rounds(call)
    finally:
        ray.shutdown()
        for child in children:
            child.kill()
            child.wait(20)
        await gate.stop(0.1)


async def vector_child(place: Path, silo: str) -> None:
    """Be a silo that holds 10 MB."""
    parts = vector_parts()

    async def call(step: str, arguments: Parts) -> Parts:
        return (parts[int.from_bytes(arguments[1], "big")],)

    async def renewed() -> bool:
        return False

    own = credentials(place, silo, "silo")
    await Dialler(own, AGGREGATOR, call, Counted(), renewed, first_wait_s=0.05).run()


if __name__ == "__main__":
    main()
