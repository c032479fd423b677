"""Every parser of strangers' files."""

from fuzz import certificates, data, models, runs, specs

PARSERS = (*models.PARSERS, *certificates.PARSERS, *data.PARSERS, *specs.PARSERS, *runs.PARSERS)
