enum { BATCH = 16 };

#define ROUND(by)                                                                        \
    first += second;                                                                     \
    second = (second << (by) | second >> (32 - (by))) ^ first;

/* Four rounds, and the words of the key that follow them. */
#define ROUNDS(one, two, three, four, left, right)                                       \
    ROUND(one) ROUND(two) ROUND(three) ROUND(four) first += (left);                      \
    second += (right);

/* Replaces indices by the words of JAX's generator at them: Threefry-2x32 of 20 rounds,
   of which the two words are combined (Salmon et al. 2011, "Parallel random numbers: as
   easy as 1, 2, 3"). Compilers make it compute several at a time. */
static void random_words(const uint32_t key[2], int32_t count, uint32_t *words)
{
    const uint32_t a = key[0], b = key[1], c = a ^ b ^ 0x1BD11BDAu;
    for (int32_t index = 0; index < count; index++) {
        uint32_t first = a, second = words[index] + b;
        ROUNDS(13, 15, 26, 6, b, c + 1)
        ROUNDS(17, 29, 16, 24, c, a + 2)
        ROUNDS(13, 15, 26, 6, a, b + 3)
        ROUNDS(17, 29, 16, 24, b, c + 4)
        ROUNDS(13, 15, 26, 6, c, a + 5)
        words[index] = first ^ second;
    }
}

/* 1 where a word whose highest bit is 0 gives a weight of -1. */
static int32_t is_inverted(const struct weights *weights)
{
    return weights->law == SIGNS;
}
