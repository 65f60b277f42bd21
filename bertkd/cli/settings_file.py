"""Reads a YAML file of options, whose values stay the text that was written: `1:2` is not 62, and `010` not 8."""

import json
from typing import Any

import yaml

from bertkd.cli.shipped import read_settings

__all__ = ["read_options"]


def read_options(name: str) -> dict[str, str | list[str]]:
    """The options of a settings file, each as the text that a command line would have, or as a list of such texts.

    A mapping, which some options of `TrainingArguments` take, becomes JSON.

    Args:
        name: a path, or the name of shipped settings.

    Raises:
        ValueError: there is no such file, it is not YAML, or an option has no value, two values or nested lists; the
            message names the line. OSError: it cannot be read.
    """
    try:
        node = _mapping(read_settings(name))
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None

    options: dict[str, str | list[str]] = {}

    for key_node, value_node in [] if node is None else node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in options:
            raise ValueError(f"line {line}: {key} is given twice; delete one of the lines.")

        if isinstance(value_node, yaml.MappingNode):
            options[key] = json.dumps(_json_value(value_node))
        elif isinstance(value_node, yaml.SequenceNode):
            options[key] = [_text(item, key) for item in value_node.value]
            if not options[key]:
                raise ValueError(f"line {line} gives {key} an empty list; leave the line out for the default.")
        else:
            options[key] = _text(value_node, key)
    return options


def _mapping(text: str) -> yaml.MappingNode | None:
    """The mapping that a YAML text is; None for an empty one."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if isinstance(node, yaml.MappingNode):
            # Puts the place of `<<: *other` what the other mapping holds.
            loader.flatten_mapping(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f"line {mark.line + 1}: "
        raise ValueError(f"{line}this is no YAML ({error.problem or error.context}).") from None
    except yaml.YAMLError as error:
        raise ValueError(f"this is no YAML ({' '.join(str(error).split())}).") from None

    if node is not None and not isinstance(node, yaml.MappingNode):
        raise ValueError("it must hold one `option: value` per line.")
    return node


def _text(node: Any, key: str) -> str:
    """The text of a value."""
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.ScalarNode):
        raise ValueError(f"line {line}: {key} holds a list or a mapping inside a list; write plain values.")
    if node.tag.endswith(":null"):
        raise ValueError(
            f"line {line} gives {key} no value; leave the line out for the default, or write the word in quotes."
        )
    return str(node.value)


def _json_value(node: Any) -> Any:
    """The value of a node inside a mapping: plain text that is JSON, such as 0.1 and true, is read as JSON."""
    if isinstance(node, yaml.MappingNode):
        content = {}
        for key, value in node.value:
            content[str(key.value)] = _json_value(value)
        return content
    if isinstance(node, yaml.SequenceNode):
        return [_json_value(item) for item in node.value]

    if node.style in ("'", '"'):
        return node.value
    try:
        return json.loads(node.value)
    except ValueError:
        return node.value
