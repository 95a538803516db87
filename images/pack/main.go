// Pack writes a container image of static programs without Docker: the archive that `docker load`, `podman load` and
// `ctr images import` read.
//
//	pack -name NAME:TAG -out FILE [-user 65532:65532] [-entrypoint /PATH] FILE=/PATH...
//
// The same files give the same bytes: entries are sorted, owned by root and dated with SOURCE_DATE_EPOCH, else 1970.
// It prints the image's id, which is the digest of its configuration.
package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path"
	"runtime"
	"sort"
	"strconv"
	"strings"
	"time"
)

// Written into the image as what made each layer.
type history struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// The image configuration of the OCI image specification; fields in its order.
type configuration struct {
	Created      string `json:"created"`
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		User       string   `json:"User,omitempty"`
		Env        []string `json:"Env,omitempty"`
		Entrypoint []string `json:"Entrypoint,omitempty"`
		WorkingDir string   `json:"WorkingDir,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

// One element of manifest.json, as `docker save` writes it.
type manifest struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "pack:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	flags := flag.NewFlagSet("pack", flag.ContinueOnError)
	name := flags.String("name", "", "NAME:TAG of the image")
	out := flags.String("out", "", "file to write")
	user := flags.String("user", "", "user and group, by number")
	entrypoint := flags.String("entrypoint", "", "program that the image runs")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *name == "" || *out == "" || flags.NArg() == 0 {
		return errors.New("-name, -out and at least one FILE=/PATH are required")
	}
	created, err := date()
	if err != nil {
		return err
	}
	layer, err := pack(flags.Args(), created)
	if err != nil {
		return err
	}

	layerDigest := digest(layer)
	var image configuration
	image.Created = created.Format(time.RFC3339)
	image.Architecture = runtime.GOARCH
	image.OS = "linux"
	image.Config.User = *user
	image.Config.WorkingDir = "/"
	image.Config.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	if *entrypoint != "" {
		image.Config.Entrypoint = []string{*entrypoint}
	}
	image.RootFS.Type = "layers"
	image.RootFS.DiffIDs = []string{"sha256:" + layerDigest}
	image.History = []history{{Created: image.Created, CreatedBy: "pack"}}
	config, err := json.Marshal(image)
	if err != nil {
		return err
	}
	configDigest := digest(config)
	layerFile := layerDigest + "/layer.tar"
	list, err := json.Marshal([]manifest{{configDigest + ".json", []string{*name}, []string{layerFile}}})
	if err != nil {
		return err
	}

	var archive bytes.Buffer
	writer := tar.NewWriter(&archive)
	for _, member := range []struct {
		name string
		data []byte
	}{{configDigest + ".json", config}, {layerFile, layer}, {"manifest.json", list}} {
		if err := add(writer, member.name, member.data, 0o644, created); err != nil {
			return err
		}
	}
	if err := writer.Close(); err != nil {
		return err
	}
	if err := os.WriteFile(*out, archive.Bytes(), 0o644); err != nil {
		return err
	}
	fmt.Println("sha256:" + configDigest)
	return nil
}

// The layer that holds the given files, each as FILE=/PATH.
func pack(files []string, created time.Time) ([]byte, error) {
	sources := map[string]string{}
	directories := map[string]bool{}
	for _, pair := range files {
		source, target, found := strings.Cut(pair, "=")
		if !found || !strings.HasPrefix(target, "/") {
			return nil, fmt.Errorf("%q is not FILE=/PATH", pair)
		}
		sources[target] = source
		for directory := path.Dir(target); directory != "/"; directory = path.Dir(directory) {
			directories[directory] = true
		}
	}
	var layer bytes.Buffer
	writer := tar.NewWriter(&layer)
	for _, directory := range sorted(directories) {
		header := tar.Header{Typeflag: tar.TypeDir, Name: directory[1:] + "/", Mode: 0o755, ModTime: created}
		if err := writer.WriteHeader(&header); err != nil {
			return nil, err
		}
	}
	for _, target := range sorted(sources) {
		source := sources[target]
		data, err := os.ReadFile(source)
		if err != nil {
			return nil, err
		}
		info, err := os.Stat(source)
		if err != nil {
			return nil, err
		}
		mode := int64(0o644)
		if info.Mode()&0o111 != 0 {
			mode = 0o755
		}
		if err := add(writer, target[1:], data, mode, created); err != nil {
			return nil, err
		}
	}
	if err := writer.Close(); err != nil {
		return nil, err
	}
	return layer.Bytes(), nil
}

func add(writer *tar.Writer, name string, data []byte, mode int64, created time.Time) error {
	header := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(data)), ModTime: created}
	if err := writer.WriteHeader(&header); err != nil {
		return err
	}
	_, err := writer.Write(data)
	return err
}

func date() (time.Time, error) {
	seconds, err := strconv.ParseInt(cmp.Or(os.Getenv("SOURCE_DATE_EPOCH"), "0"), 10, 64)
	return time.Unix(seconds, 0).UTC(), err
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

func sorted[V any](set map[string]V) []string {
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
