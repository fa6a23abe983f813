"""The read model on each serving machine. The only package that knows LMDB."""
