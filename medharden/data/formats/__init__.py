"""Files to stored images in rescaled units: DICOM, NIfTI and pictures, read within the memory that they may take."""
