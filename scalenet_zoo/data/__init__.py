"""Data sets: opened by what a user writes, augmented, and given in batches.

"masks:/path" --open_data--> Examples --training_loader--> batches, augmented
                                 |
                                 +------evaluation_loader-> batches, as they are
"""
