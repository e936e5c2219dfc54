"""Problems and metrics held against really quantized networks. Needs torch."""
