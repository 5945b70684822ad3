package main

import "testing"

func TestSmoke(t *testing.T) {
	ts := start(t)
	c := ts.create("hello")
	ts.get("/"+c.ID+"/raw").want(200, "")
	ts.stored(1)
	ts.do("DELETE", "/"+c.ID, nil, "X-Delete-Token: "+c.DeleteToken).want(200, "")
	ts.nothing()
}
