"""The one set of lattice parameters and the codes of the worker's jobs: all that both sides of the sandbox share.

Degree and moduli are within the bounds of the Homomorphic Encryption Standard (2018) for 128 bits: 109 bits at 4,096.
"""

import struct

DEGREE = 4096
MODULUS = 1152921504606830593  # q: 60 bits, 1 mod 8192
KEY_MODULUS = 562949953216513  # 49 bits, in the public key only
BATCHING_PRIME = 4398046486529  # t: the largest prime below 2^42 that is 1 mod 8192
CIPHERTEXT_WORDS = 2 * DEGREE
CIPHERTEXT_BYTES = 8 * CIPHERTEXT_WORDS
PUBLIC_BYTES = 2 * 2 * DEGREE * 8  # two polynomials, two moduli

BFV, CKKS = 1, 2
ENCRYPT, DECRYPT, KEYGEN = 1, 2, 3
SETUP = struct.Struct("<BBB")  # scheme, scale bits, whether a secret follows the public key
