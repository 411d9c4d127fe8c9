"""The words every layer speaks: frozen dataclasses and the ports. No I/O, no third-party imports."""
