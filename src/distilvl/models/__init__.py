"""Any model of images and texts behind one door."""
