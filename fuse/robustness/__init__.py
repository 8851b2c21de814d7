"""What noise, occlusion and missing modalities cost."""
