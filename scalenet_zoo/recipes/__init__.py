"""Recipes for `scalenet-zoo train --recipe NAME`: values that differ from `scalenet_zoo.recipe.Recipe`'s."""
