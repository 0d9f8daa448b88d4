"""The protocol of Trimtab: the values and messages that server, client and tools share.

Everything here but `wire` is pure and needs numpy alone. `wire` converts between these values
and the messages of the contract (package `trimtab`); each message's two directions stand side
by side.

Legend for all shapes: L layers, E logical experts, R slots of a layer, G GPUs, K layers that
differ between two placements, M rows, X replicas of the expert that has most.
"""
