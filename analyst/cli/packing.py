"""`consilo model pack`: a torch module as a file that silos read as data."""

import argparse
from pathlib import Path

from rich.console import Console

from analyst.errors import AnalystError
from federation.files import write_out
from federation.terminal import Commands, add_command, plain
from policies.networks.packed import encoded
from policies.networks.words import described


def add_pack_command(actions: Commands) -> None:
    """Add `pack`."""
    pack = add_command(actions, "pack", _pack, "pack a torch module as data: a graph of listed calls, and its weights")
    pack.add_argument("module", metavar="FILE:NAME", help="a Python file, and a class, function or module that it has")
    text = "what one row gives, once for each input: 64, 1x8x8, number, 'int<1000' or '20:int<1000'"
    pack.add_argument("--input", action="append", required=True, metavar="SHAPE", dest="inputs", help=text)
    pack.add_argument("--args", default="", metavar="JSON", help="""what NAME is given, such as '{"hidden": 32}'""")
    pack.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the packed network is written")


def _pack(options: argparse.Namespace, notes: Console) -> int:
    file, _, name = options.module.rpartition(":")
    if not file or not name.isidentifier():
        raise AnalystError(f"{options.module!r} names no module", "name a file and what it has: net.py:Net")
    try:
        from analyst.networks.loading import made  # torch takes seconds to import
        from analyst.networks.packing import packed_module
    except ImportError as err:
        raise AnalystError(f"torch cannot be imported: {err}", 'pip install "consilo[train]"') from err
    from analyst.networks.inputs import input_form

    inputs = [input_form(one) for one in options.inputs]
    network = packed_module(made(Path(file), name, options.args), inputs, Path(file))
    data = encoded(network)
    write_out(options.out, data)
    print(f"{options.out}: {len(data):,} bytes, of them {len(network.graph.encode()):,} of the graph")
    for line in described(network.graph):
        print(f"  {plain(line)}")
    print("in a job:")
    print("  [model]")
    print(f'  graph = "{network.name}"')
    print(f'  file = "{plain(str(options.out))}"')
    return 0
