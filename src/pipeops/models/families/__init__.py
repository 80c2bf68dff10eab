"""The families of encoders: one declaration each. Nothing heavy is imported.

A declaration says what differs from family to family; the layers that several of them share are a layout
(``post_norm``, ``pre_norm``). What a layout needs of PyTorch is in ``models/encoders``, of ONNX in
``onnx/encoders``; it names both.
"""
