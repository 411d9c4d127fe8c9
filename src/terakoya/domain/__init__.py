"""The words every layer speaks: frozen dataclasses and the ports. No I/O; of other packages only
numpy's arrays."""
