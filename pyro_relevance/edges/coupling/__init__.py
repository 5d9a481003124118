r"""Which channels of a network must be pruned together, for any network that can be exported.

Every position of a channel axis gets a label, and the labels travel through the graph as data do:
an operator that only moves elements (reshape, permute, slice, concatenate, roll, ...) is run on the
labels themselves. Where two tensors are combined element by element (residual sum, product of
squeeze-and-excitation, BatchNorm's parameters), their labels are joined, and these channels must be
pruned together. A layer that mixes channels *reads* the labels of its columns and makes new ones.
An operator that reads all channels at once (LayerNorm, softmax over channels) blocks its labels:
they cannot be pruned exactly, and the reason is kept.
"""
