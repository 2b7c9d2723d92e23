"""Any model of images and texts behind one door: `load_model`, and `load_encoder` for L2-normalised embeddings."""

from distilvl.models.encoder import Encoder, ModelInfo, is_same_model
from distilvl.models.loading import load_encoder, load_model, load_teacher, model_folder

__all__ = ["Encoder", "ModelInfo", "is_same_model", "load_encoder", "load_model", "load_teacher", "model_folder"]
