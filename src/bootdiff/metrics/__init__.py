"""The figures by which samples are judged, computed from feature tensors and from images."""
