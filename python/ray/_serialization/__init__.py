"""How Python values become bytes: the pickler for what is not plain, custom serializers, exceptions for errors."""
