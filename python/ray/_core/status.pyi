# No Python names: Status is turned into exceptions inside the extension modules.
