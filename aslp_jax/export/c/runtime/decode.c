/* Weights of a dense layer that are decoded at a time. */
enum { DECODED = 64 };

/* The next eight bits and some more; behind the last bits lies one more byte. */
static uint32_t bits_ahead(const struct bits *bits)
{
    const uint8_t *byte = bits->byte + (bits->next >> 3);
    return ((uint32_t)byte[0] | (uint32_t)byte[1] << 8) >> (bits->next & 7);
}

/* Writes the next `count` weights as 1, -1 or 0, and a few more. */
static void decode(struct cursor *cursor, int32_t count, int8_t *weights)
{
    static const uint8_t ones[16] = {0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4};
    for (int32_t index = 0; index < count; index += 8) {
        const int32_t left = count - index < 8 ? count - index : 8;
        const uint32_t kept = bits_ahead(&cursor->kept) & ((1u << left) - 1);
        uint32_t negative = bits_ahead(&cursor->negative);
        const uint32_t first = kept & 15, second = kept >> 4;
        memcpy(weights + index, four_weights + ((first << 4 | (negative & 15)) << 2), 4);
        negative >>= ones[first];
        memcpy(weights + index + 4, four_weights + ((second << 4 | (negative & 15)) << 2), 4);
        cursor->kept.next += (uint32_t)left;
        cursor->negative.next += (uint32_t)(ones[first] + ones[second]);
    }
}
