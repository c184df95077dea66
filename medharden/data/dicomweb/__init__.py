"""Series that the rows of a manifest name by UID, retrieved from a DICOMweb server into a private folder."""
