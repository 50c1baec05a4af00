"""A request with the packed network that it names, as this silo has it."""

from policies.requests.network_steps import packed_name, with_network
from policies.requests.request import Request
from silo_node.graphs.kept import KeptNetworks


def with_kept(graphs: KeptNetworks | None, request: Request) -> Request:
    """Return a request with its packed network, where the silo has that; the same request where it needs none."""
    name = packed_name(request)
    return request if name is None or graphs is None else with_network(request, graphs.find(name))
