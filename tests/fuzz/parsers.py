"""Every parser of strangers' files."""

from fuzz import certificates, data, models

PARSERS = (*models.PARSERS, *certificates.PARSERS, *data.PARSERS)
