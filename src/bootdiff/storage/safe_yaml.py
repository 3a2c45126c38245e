"""PyYAML's safe loader, with limits on the size to which a text may unfold."""

from __future__ import annotations

from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from bootdiff.storage.reading import DEEPEST, MOST_DIGITS, MOST_EXPANDED, MOST_NODES, MOST_NUMBER


def load(text: str) -> Any:
    """Return the value of a YAML text.

    Raises:
        yaml.YAMLError, ValueError, and others: if the text is not YAML, or beyond a limit.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _check_unfolded(node, {})
        return loader.construct_document(node)
    finally:
        loader.dispose()


#: the mark of a node whose parts are being looked at
_BEGUN = (0, 0)


class _Loader(yaml.SafeLoader):
    """A safe loader that counts nodes and levels while it composes, and looks at numbers before they are computed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.nodes = self.level = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Compose a node within the limits on the number of nodes and on their depth."""
        self.nodes += 1
        self.level += 1
        if self.nodes > MOST_NODES:
            raise ValueError(f"it has more than {MOST_NODES:,} values")
        if self.level > DEEPEST:
            raise ValueError(f"recursion: it is nested more than {DEEPEST} deep")
        node = super().compose_node(parent, index)
        self.level -= 1
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a dictionary of a node whose keys differ; a key that stands twice is refused."""
        said = [key.value for key, _ in node.value if isinstance(key, ScalarNode) and key.value != "<<"]
        twice = next((key for place, key in enumerate(said) if key in said[:place]), None)
        if twice is not None:
            raise ValueError(f"it says {twice[:60]!r} twice; remove one of them")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: ScalarNode) -> int:
        """Make an integer of at most ``MOST_DIGITS`` digits."""
        _check_number(node)
        value = super().construct_yaml_int(node)
        if abs(value) >= 10**MOST_DIGITS:
            raise ValueError(f"an integer of more than {MOST_DIGITS} digits")
        return value

    def construct_yaml_float(self, node: ScalarNode) -> float:
        """Make a real number of at most ``MOST_NUMBER`` characters."""
        _check_number(node)
        return super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_number(node: ScalarNode) -> None:
    if len(node.value) > MOST_NUMBER:
        raise ValueError(f"a number of {len(node.value)} characters")


def _check_unfolded(node: Node, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return (values and characters, levels) of a node once its aliases are written out; each node is looked at once.

    Raises:
        ValueError: if the node unfolds to more than the limits, or without end.
    """
    if known.get(id(node)) == _BEGUN:
        raise ValueError("an alias holds itself")
    if id(node) not in known:
        known[id(node)] = _BEGUN
        inner: list[Node] = []
        if isinstance(node, SequenceNode):
            inner = node.value
        elif isinstance(node, MappingNode):
            inner = [part for pair in node.value for part in pair]
        parts = [_check_unfolded(part, known) for part in inner]
        own = len(node.value) if isinstance(node, ScalarNode) else 0
        size, levels = 1 + own + sum(part[0] for part in parts), 1 + max((part[1] for part in parts), default=0)
        if size > MOST_EXPANDED:
            raise ValueError(f"its aliases unfold to more than {MOST_EXPANDED:,} values")
        if levels > DEEPEST:
            raise ValueError(f"recursion: its aliases unfold to more than {DEEPEST} levels")
        known[id(node)] = size, levels
    return known[id(node)]
