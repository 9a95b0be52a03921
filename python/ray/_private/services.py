"""`ray._private.services`: helpers under their old names."""

from ray.util.node import get_node_ip_address as get_node_ip_address
