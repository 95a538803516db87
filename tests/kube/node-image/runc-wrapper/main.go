// Runc-wrapper is runc for hosts that withhold CAP_SYS_RESOURCE, as some virtual machines and CI workers do.
//
// There the kernel refuses to raise a limit, to lower an OOM score and to grant that capability, and runc fails on
// each. So the wrapper takes all three out of the OCI configuration of what is about to be created or executed, and
// becomes runc. Where nothing is withheld it changes nothing that the suite relies on.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const runc = "/usr/sbin/runc"

func main() {
	arguments := os.Args[1:]
	if err := prepare(arguments); err != nil {
		fmt.Fprintln(os.Stderr, "runc-wrapper:", err)
		os.Exit(1)
	}
	err := syscall.Exec(runc, append([]string{"runc"}, arguments...), os.Environ())
	fmt.Fprintf(os.Stderr, "runc-wrapper: failed to run %s: %v\n", runc, err)
	os.Exit(1)
}

// Edits the configuration that this command line is about to use, if it is one that uses any.
func prepare(arguments []string) error {
	command := slices.IndexFunc(arguments, func(argument string) bool {
		return argument == "create" || argument == "run" || argument == "exec"
	})
	if command < 0 {
		return nil
	}
	if arguments[command] == "exec" {
		if file := option(arguments, "-p", "--process"); file != "" {
			return edit(file, func(whole map[string]any) map[string]any { return whole })
		}
		return nil
	}
	bundle := option(arguments, "-b", "--bundle")
	return edit(filepath.Join(bundle, "config.json"), func(whole map[string]any) map[string]any {
		process, _ := whole["process"].(map[string]any)
		return process
	})
}

// The value of an option, written as one argument or as two.
func option(arguments []string, short, long string) string {
	for index, argument := range arguments {
		if (argument == short || argument == long) && index+1 < len(arguments) {
			return arguments[index+1]
		}
		if value, found := strings.CutPrefix(argument, long+"="); found {
			return value
		}
	}
	return ""
}

// Rewrites a JSON file after taking from the process in it what cannot be granted.
func edit(file string, find func(map[string]any) map[string]any) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var whole map[string]any
	if err := json.Unmarshal(data, &whole); err != nil {
		return fmt.Errorf("failed to read %s: %w", file, err)
	}
	process := find(whole)
	if process == nil {
		return nil
	}
	delete(process, "rlimits")
	if score, found := process["oomScoreAdj"].(float64); found && score <= 0 {
		delete(process, "oomScoreAdj")
	}
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		list, _ := set.([]any)
		sets[name] = slices.DeleteFunc(list, func(one any) bool { return one == "CAP_SYS_RESOURCE" })
	}
	data, err = json.Marshal(whole)
	if err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}
