"""3D expression landmarks (SkyReels-A1 §3.2): the record, its metric geometry, its drawing."""
