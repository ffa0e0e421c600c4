package nft

// Holds reports whether the table has what part has, as it is there, whatever else the table has. It reads only that.
func (t *Table) Holds(part Content) (bool, error) {
	have, err := t.Conn.shape(t.family, t.name)
	if err != nil || !have.exists {
		return false, err
	}
	of := &actual{exists: true, flags: have.flags, sets: map[string]*actualSet{}, chains: map[string]*actualChain{}}
	for _, c := range part.Chains {
		x := have.chains[c.Name]
		if x == nil {
			return false, nil
		}
		if x.rules, err = t.Rules(t.family, t.name, c.Name); err != nil {
			return false, err
		}
		of.chains[c.Name] = x
	}
	for _, s := range part.Sets {
		x := have.sets[s.Name]
		if x == nil {
			return false, nil
		}
		of.sets[s.Name] = x
	}
	if err := t.readElements(of, part, func(string) bool { return true }); err != nil {
		return false, err
	}
	return makePlan(part, of).isEmpty(), nil
}
