"""The cost model: how long a step takes, by a roofline or as a calibration has measured it, and how it is fitted."""
