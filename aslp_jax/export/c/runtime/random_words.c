/* Compilers that have vectors compute several lanes at a time. */
#if defined(__SSE2__) || defined(__ARM_NEON) || defined(__ALTIVEC__)
enum { LANES = 12 };
#else
enum { LANES = 1 };
#endif
enum { BATCH = 24 }; /* a multiple of LANES */

#define ROUND(by)                                                                        \
    first += second;                                                                     \
    second = (second << (by) | second >> (32 - (by))) ^ first;

struct pairs {
    uint32_t first[LANES], second[LANES];
};

/* Four rounds that rotate by these bits, and the words of the key that follow. */
static void mix(struct pairs *pairs, int32_t one, int32_t two, int32_t three,
                int32_t four, uint32_t left, uint32_t right)
{
    for (int32_t lane = 0; lane < LANES; lane++) {
        uint32_t first = pairs->first[lane], second = pairs->second[lane];
        ROUND(one) ROUND(two) ROUND(three) ROUND(four)
        pairs->first[lane] = first + left;
        pairs->second[lane] = second + right;
    }
}

/* Replaces indices by the words of JAX's generator at them: Threefry-2x32 of 20 rounds,
   of which the two words are combined (Salmon et al. 2011, "Parallel random numbers: as
   easy as 1, 2, 3"). Up to LANES - 1 more words are replaced. */
static void random_words(const uint32_t key[2], int32_t count, uint32_t *words)
{
    const uint32_t a = key[0], b = key[1], c = a ^ b ^ 0x1BD11BDAu;
    struct pairs pairs;
    for (; count > 0; count -= LANES) {
        for (int32_t lane = 0; lane < LANES; lane++) {
            pairs.first[lane] = a;
            pairs.second[lane] = words[lane] + b;
        }
        mix(&pairs, 13, 15, 26, 6, b, c + 1);
        mix(&pairs, 17, 29, 16, 24, c, a + 2);
        mix(&pairs, 13, 15, 26, 6, a, b + 3);
        mix(&pairs, 17, 29, 16, 24, b, c + 4);
        mix(&pairs, 13, 15, 26, 6, c, a + 5);
        for (int32_t lane = 0; lane < LANES; lane++) {
            *words++ = pairs.first[lane] ^ pairs.second[lane];
        }
    }
}
