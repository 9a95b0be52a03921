"""Extension modules over the C++ core. They convert and release the GIL; logic is in C++ or `ray._runtime`."""
