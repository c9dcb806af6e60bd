"""Which data, models, parameters and code produced this, and what became of it: from Git, ``dvc.lock`` and the data alone.

No service runs and DVC itself is not loaded (its import alone costs a second). From the sources upwards: ``repository`` reads
Git, ``lock`` reads what DVC recorded, ``history`` the records of every revision and experiment, ``chain`` follows them both ways,
``tables`` finds the data, ``rows`` queries them, ``links`` checks all of it, ``show`` prints.
"""
