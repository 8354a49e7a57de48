"""The contract between the stages: messages, topics, codec, histogram, errors.

Standard library, NumPy and Arrow only; importing it loads neither faust nor bcc.
"""
