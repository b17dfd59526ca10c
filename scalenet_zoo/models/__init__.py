"""Models as users name them, networks and their exported files alike: opened, evaluated, shown images."""
