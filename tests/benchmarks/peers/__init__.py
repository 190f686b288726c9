"""Searches that ours is compared with, on the same task: each is a function of a ``SearchTask``.

A search returns rows of the table in the order it evaluates them, each once,
each within the limit; costs are known before evaluation, metrics are not.
"""

from tests.benchmarks.peers.blocks import paper_rule
from tests.benchmarks.peers.evolution import greedy_evolution, regularised_evolution
from tests.benchmarks.peers.simple import local_search, random_search
from tests.benchmarks.peers.task import Search, SearchTask
from tests.benchmarks.peers.tree import prioritised_tree_search, tree_search

PEERS: dict[str, Search] = {
    "random": random_search,
    "evolution": regularised_evolution,
    "evolution-greedy": greedy_evolution,
    "uct": tree_search,
    "uct-prioritised": prioritised_tree_search,
    "local": local_search,
    "paper": paper_rule,
}

__all__ = ["PEERS", "Search", "SearchTask"]
