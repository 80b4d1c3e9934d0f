/* 1 where a word whose highest bit is 0 gives a weight of -1. */
static int32_t is_inverted(const struct weights *weights)
{
    return weights->law == SIGNS;
}
