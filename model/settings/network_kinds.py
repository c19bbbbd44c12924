"""All kinds of networks, by the names under which their settings are stored (standard library only).

A new kind of network has its line here and in `flowkit.model.networks.phase_networks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowkit.errors import ParameterError
from flowkit.model.settings.c3d import C3DConfig
from flowkit.model.settings.dynamic_image import DynamicImageConfig
from flowkit.model.settings.fusion3d import FusionConfig
from flowkit.model.settings.network import STResNetConfig
from flowkit.model.settings.network_config import NetworkConfig
from flowkit.model.settings.sequence import SequenceConfig
from flowkit.model.settings.vgg import VggConfig

_KINDS: tuple[type[NetworkConfig], ...] = (STResNetConfig, VggConfig, FusionConfig, DynamicImageConfig, C3DConfig, SequenceConfig)
NETWORK_KINDS: dict[str, type[NetworkConfig]] = {name: kind for kind in _KINDS for name in kind.kinds}


def network_from_dict(values: Mapping[str, Any]) -> NetworkConfig:
    """Make the settings of a network of any kind from what its `to_dict` returned.

    Parameters
    ----------
    values : mapping
        Built-in types. Without ``kind``, they are those of a residual network: records were written before there were other kinds.

    Raises
    ------
    ParameterError
        If the kind or a name is unknown, or a value out of its range.

    Examples
    --------
    >>> from flowkit.model.settings.network_kinds import network_from_dict
    >>> network_from_dict({"num_classes": 5, "depth": 101})
    STResNetConfig(num_classes=5, depth=101)
    """
    kind = values.get("kind", STResNetConfig.kinds[0])
    if not isinstance(kind, str) or kind not in NETWORK_KINDS:
        raise ParameterError(f"the kind of a network must be one of {', '.join(NETWORK_KINDS)}, got {kind!r}")
    return NETWORK_KINDS[kind].from_dict(values)
