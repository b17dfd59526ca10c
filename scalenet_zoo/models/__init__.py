"""Opening, evaluation and prediction of models as users name them: networks and exported files alike."""
