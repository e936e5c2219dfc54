"""What any training loop needs: samples, augmentation, seeds by step, one-cycle training. Needs torch."""
