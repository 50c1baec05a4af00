"""The lattice parameters and the codes of the worker's jobs, which both sides of the sandbox import.

For 128 bits of security at degree 4,096 the Homomorphic Encryption Standard (2018) allows moduli of 109 bits in all.
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
